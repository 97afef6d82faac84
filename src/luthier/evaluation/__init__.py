"""Before and after: statistics that hold, and the page that shows them."""
