"""The network: built, trained with Horovod, saved and loaded without pickle."""
