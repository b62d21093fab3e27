"""The OpenAPI 3.1 document of the runtime API, as JSON, a file for each group of endpoints."""
