# bash completion for kubectl-countersign:
#
#   source <(kubectl-countersign completion bash)
_kubectl_countersign() {
	local line value words cur
	cur=${COMP_LINE:0:COMP_POINT}
	read -r -a words <<<"$cur"
	case $cur in *[[:space:]]) words+=('') ;; esac
	COMPREPLY=()
	while IFS= read -r line; do
		case $line in
		:0) compopt -o default ;;
		:*) ;;
		*)
			value=${line%%$'\t'*}
			# bash takes what is before an = for a word of its own.
			case ${COMP_WORDBREAKS} in *=*) value=${value#--*=} ;; esac
			COMPREPLY+=("$value")
			;;
		esac
	done < <(kubectl-countersign __complete "${words[@]:1}" 2>/dev/null)
}
complete -F _kubectl_countersign kubectl-countersign
