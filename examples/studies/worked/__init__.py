"""Problems with worked solutions, their reward, and policies taught on them: what the study `replay` trains on."""
