"""Runs `python -m flywheel_assets.cli`."""

from flywheel_assets.cli import main

main()
