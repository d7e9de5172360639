"""Doctor: what an environment has (`environment`) and what follows (`diagnosis`)."""
