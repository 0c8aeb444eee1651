# One command set for people and for .ci/run. Everything goes through uv, which keeps the environment as uv.lock says.
.PHONY: fmt check test docs

fmt:  ## put the code into its one form
	uv run ruff format
	uv run ruff check --fix

check:  ## format, lint, types, and the walls between the floors; seconds
	uv run ruff format --check
	uv run ruff check
	uv run pyright
	uv run pytest tests/walls

test:  ## the default suite; about three to four minutes on two cores
	uv run pytest

docs:  ## docs/_build/html/index.html; warnings are errors, and nothing is fetched
	uv run --group docs sphinx-build --builder html --fail-on-warning --keep-going --quiet docs docs/_build/html
