"""The bundled base model, its card and the recipe that made it."""
