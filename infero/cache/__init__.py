"""Where keys and values are kept between steps. Chapters 7 to 9 explain and extend it."""
