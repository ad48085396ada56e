"""The processes of one training, and how they exchange gradients."""
