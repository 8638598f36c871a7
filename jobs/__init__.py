"""What a job is, where it is kept, and what it cost."""
