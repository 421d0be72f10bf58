"""Where things lie: the checkout, what tests read, and what lies beside some checkouts."""

from pathlib import Path

ROOT = Path(__file__).parents[2]

RECIPES = ROOT / "recipes"

FIXTURES = ROOT / "tests" / "fixtures"

SHARED_ART = ROOT.parent / "shared" / "art"
"""Real paintings in the public domain, where they lie beside the checkout; few have them."""

SHARED_TABLES = ROOT.parent / "shared" / "nga"
"""Real tables of the National Gallery of Art, likewise."""
