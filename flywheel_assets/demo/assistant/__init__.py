"""Engineers correct a coding assistant that learnt their libraries wrongly."""
