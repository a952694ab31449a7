"""How it travels: links, and the drivers that answer an algorithm's effects."""
