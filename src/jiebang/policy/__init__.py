"""Every yes and no as data: packs, their typed SQL conditions, evaluation over columns, the calendar. Pure."""
