"""The page of a run and the series as films: what they show (view, build) and how it looks (templates)."""
