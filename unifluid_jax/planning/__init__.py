"""What a run would need on TPUs that are not there."""
