"Settings, recipes, the loop, and the record of a run"
