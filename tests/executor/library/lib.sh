# library-prefix = mine
