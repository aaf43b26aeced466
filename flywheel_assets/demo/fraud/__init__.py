"""A new card fraud appears, and labels come late."""
