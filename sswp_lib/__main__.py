from sswp_lib.cli import main

main()
