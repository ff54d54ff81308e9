"""Looking at images and making thumbnails, with hostile files in mind."""
