"""The task of all four studies: walks on a ring (`walk`), their reward, a base policy taught on them."""
