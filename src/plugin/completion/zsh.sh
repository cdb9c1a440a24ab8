#compdef kubectl-countersign
# zsh completion for kubectl-countersign:
#
#   source <(kubectl-countersign completion zsh)
_kubectl_countersign() {
	local line directive
	local -a answers
	for line in "${(@f)$(kubectl-countersign __complete "${words[@]:1:$((CURRENT - 1))}" 2>/dev/null)}"; do
		case $line in
		:*) directive=$line ;;
		?*) answers+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}") ;;
		esac
	done
	if [[ $directive == :0 && ${#answers} -eq 0 ]]; then
		_files
	else
		_describe kubectl-countersign answers
	fi
}
compdef _kubectl_countersign kubectl-countersign
