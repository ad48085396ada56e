"""Where is my data set? A module for each, and what the sets of image files share: found, checked, remembered."""
