"""Replays an application's dated history week by week, and compares its flywheel with simpler ways to retrain.

| module | what it does |
|---|---|
| `plan` | the weeks, and the checks of what was asked for |
| `history` | reads landed predictions and labels; says which labels were known on which day |
| `landing` | lands history's days in the throw-away home, with the scores of the model that serves there |
| `rivals` | chooses each rival's rows, fits its model, corrects its scores |
| `replay` | the loop over the weeks |
| `measuring` | compares all strategies on the labels that are known at the end |
| `report` | the report as JSON, as Markdown and as a plot |
| `wheel` | turns the application's own assets in the throw-away home; only this module imports Dagster |
"""
