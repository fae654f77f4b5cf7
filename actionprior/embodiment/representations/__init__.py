"""One class per action and state representation; ``by_name`` lists them."""
