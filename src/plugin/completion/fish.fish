# fish completion for kubectl-countersign:
#
#   kubectl-countersign completion fish | source
function __kubectl_countersign
    set -l words (commandline -opc) (commandline -ct)
    kubectl-countersign __complete $words[2..-1] 2>/dev/null | string match --invert --regex '^:'
end
complete -c kubectl-countersign -f -a '(__kubectl_countersign)'
