"""What people do with a trained pair: encode, reconstruct, generate, impute, likelihoods, draws for ArviZ, export.

`Trained` holds the methods. A run directory (`pathscore.open_run`) and a program of your own (`pathscore.load`) have
them. One file for each use; all of them work with any Pyro pair whose data points lie in one plate.
"""
