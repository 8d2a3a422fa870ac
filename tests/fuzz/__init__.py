"""Wrong arguments to every public function."""
