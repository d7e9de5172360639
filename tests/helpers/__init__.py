"""What several test files share, a module for each subject."""
