"""Networks: the action expert, the vision-language trunks and what fuses them."""
