"""Methods of composition, one file each; a method registers itself."""
