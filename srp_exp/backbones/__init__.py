"""Backbones: CIFAR-style networks for small images, and the builder for every network of timm.

Each module has one ``build`` that conf/backbone names as ``_target_``. None of them knows of SRP.
"""
