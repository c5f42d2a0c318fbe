"""Names and axes of each family of files, one file for each project."""
