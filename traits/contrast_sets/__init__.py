"""What a trait is: matched stories, what a reviewer would say of them, who judges them."""
