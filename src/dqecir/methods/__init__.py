"""Methods of composition, one file each: importing the file registers the method by its name."""
