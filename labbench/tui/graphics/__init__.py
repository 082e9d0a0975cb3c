"""Images in terminals that show pixels: charts and pictures at the resolution of the screen."""
