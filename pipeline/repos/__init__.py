"""repos"""
