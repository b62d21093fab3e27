"""Tables, repositories and migrations. No business rule lives here."""
