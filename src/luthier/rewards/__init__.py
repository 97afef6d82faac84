"""What scores answers: one file a reward; the first come with reinforcement learning."""
