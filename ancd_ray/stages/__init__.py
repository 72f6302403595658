"""The stages of a job, one file each; they meet only through tables and never import each other."""
