"""Tests of the clients, which are distributions of their own."""
