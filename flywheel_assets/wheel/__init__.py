"""Shows each application's wheel on the capture service: numbers, the distance to the next training, alarms, costs.

Reads only, and no text of a person. May import every room below it that does not load dagster, mlflow or torch.
"""
