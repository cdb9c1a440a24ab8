#!/bin/sh
# kubectl's own completion asks this for what follows `kubectl countersign`.
# It must be in PATH under the name kubectl_complete-countersign:
#
#   kubectl countersign completion kubectl >~/.local/bin/kubectl_complete-countersign
#   chmod +x ~/.local/bin/kubectl_complete-countersign
exec kubectl-countersign __complete "$@"
