"""Museums: their records become works with rights, and works become images. One museum, one module and one row."""
