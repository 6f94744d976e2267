from setuptools import find_packages, setup

setup(name="m2distill_policy", version="0.1.0", packages=find_packages())
