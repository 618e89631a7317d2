"""Write the completions for bash, zsh and fish."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from release.commandline import Argument, Command, Option, Program, Value

_GENERATED = "generated from the commands' own parsers"


def bash_completion(program: Program) -> str:
    """Return a script for bash; it stands alone, and needs no package of completions."""
    lines = [
        f"# bash completion of sgagent; {_GENERATED}.",
        *_BASH_FUNCTIONS.splitlines(),
        "_sgagent() {",
        *_BASH_WORDS.splitlines(),
        "    for ((i = 1; i < COMP_CWORD; i++)); do",
        "        case ${COMP_WORDS[i]} in",
        f"            {'|'.join(_valued_names(program.options))}) i=$((i + 1)) ;;",
        "            -*) ;;",
        "            *) command=${COMP_WORDS[i]}; break ;;",
        "        esac",
        "    done",
        "    COMPREPLY=()",
        "    case $command:$before in",
        *_bash_values("", program.options),
        *(line for command in program.commands for line in _bash_values(command.name, command.options)),
        "        *)",
        "            case $command in",
        f'                "") _sgagent_words "{_words(program)}" ;;',
        *(f"                {command.name}) {_bash_words(command)} ;;" for command in program.commands),
        "            esac ;;",
        "    esac",
        "}",
        "complete -F _sgagent sgagent",
    ]
    return "\n".join((*lines, ""))


_BASH_FUNCTIONS = r"""
_sgagent_words() { mapfile -t COMPREPLY < <(compgen -W "$1" -- "$word"); }
_sgagent_list() {
    local head=
    if [[ $word == *,* ]]; then head=${word%,*},; fi
    mapfile -t COMPREPLY < <(compgen -P "$head" -W "$1" -- "${word##*,}")
}
# What only the definitions or the agent know; with the configuration and documents on the line.
_sgagent_known() {
    local i kind=$1 given=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
            --config|--definitions)
                given+=("${COMP_WORDS[i]}")
                if [[ ${COMP_WORDS[i + 1]} == "=" ]]; then i=$((i + 1)); fi
                given+=("${COMP_WORDS[i + 1]}") ;;
        esac
    done
    sgagent complete "$kind" "${given[@]}" 2> /dev/null
}
_sgagent_links() {
    local link links=()
    for link in /sys/class/net/*/; do link=${link%/}; links+=("${link##*/}"); done
    _sgagent_words "${links[*]/#lo/}"
}
_sgagent_bindings() {
    if [[ $word == *=* ]]; then link=${word%%=*}=; word=${word#*=}; fi
    if [[ $link ]]; then
        _sgagent_list "$(_sgagent_known groups)"
        if [[ $link == *= ]]; then COMPREPLY=("${COMPREPLY[@]/#/$link}"); fi
    else
        _sgagent_links
        COMPREPLY=("${COMPREPLY[@]/%/=}")
    fi
    compopt -o nospace
}
_sgagent_files() { compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$word"); }
""".strip()
_BASH_WORDS = r"""
    local word=${COMP_WORDS[COMP_CWORD]} last=$COMP_CWORD before command= link= i
    # bash takes the = of --option=value, and that of LINK=GROUP, for a word of its own.
    if [[ $word == "=" ]]; then word=; last=$((last + 1)); fi
    if [[ ${COMP_WORDS[last - 1]} == "=" ]]; then
        last=$((last - 1))
        if [[ ${COMP_WORDS[last - 1]} != -* ]]; then
            link=${COMP_WORDS[last - 1]}
            last=$((last - 1))
            if [[ ${COMP_WORDS[last - 1]} == "=" ]]; then last=$((last - 1)); fi
        fi
    fi
    before=${COMP_WORDS[last - 1]}
""".strip("\n")

_BASH = {
    Value.FILE: "_sgagent_files",
    Value.LINK: "_sgagent_links",
    Value.BOUND_LINK: '_sgagent_words "$(_sgagent_known links)"',
    Value.BINDING: "_sgagent_bindings",
    Value.RULE: '_sgagent_words "$(_sgagent_known rules)"',
    Value.ANY: ":",
}


def _bash_values(command: str, options: Iterable[Option]) -> Iterator[str]:
    """Yield what completes the value behind each option."""
    for option in options:
        if option.value is not Value.NONE:
            patterns = "|".join(f"{command}:{name}" for name in option.names)
            function = "_sgagent_list" if option.value is Value.CODES else "_sgagent_words"
            action = _BASH.get(option.value) or f'{function} "{" ".join(option.choices)}"'
            yield f"        {patterns}) {action} ;;"


def _bash_words(command: Command) -> str:
    """Return what completes a word that belongs to no option: files too, where the command takes some.

    Of the words that an argument is chosen from, none is offered once one is there.
    """
    options = f'_sgagent_words "{" ".join(_long_names(command.options))}"'
    chosen = [word for argument in command.arguments for word in argument.choices]
    takes_files = any(argument.value is Value.FILE for argument in command.arguments)
    rest = f"if [[ $word == -* ]]; then {options}; else _sgagent_files; fi" if takes_files else options
    if not chosen:
        return rest
    is_missing = f'! " ${{COMP_WORDS[*]:1:COMP_CWORD-1}} " =~ " "({"|".join(chosen)})" "'
    return f'if [[ {is_missing} ]]; then _sgagent_words "{_words_of(command)}"; else {rest}; fi'


def _valued_names(options: Iterable[Option]) -> Iterator[str]:
    """Yield the names of options that have a value."""
    for option in options:
        if option.value is not Value.NONE:
            yield from option.names


def _words(program: Program) -> str:
    return " ".join([command.name for command in program.commands] + _long_names(program.options))


def _words_of(command: Command) -> str:
    """Return the words that a command may be followed by."""
    chosen = [word for argument in command.arguments for word in argument.choices]
    return " ".join(chosen + _long_names(command.options))


def _long_names(options: Iterable[Option]) -> list[str]:
    return [option.names[-1] for option in options]


def zsh_completion(program: Program) -> str:
    """Return a function for zsh."""
    lines = [
        "#compdef sgagent",
        f"# {_GENERATED}.",
        *_ZSH_FUNCTIONS.splitlines(),
        "_sgagent() {",
        "    local curcontext=$curcontext state line configuration",
        "    local -A opt_args",
        "    local -a commands=(",
        *(f"        {_zsh_quoted(f'{c.name}:{c.summary}')}" for c in program.commands),
        "    )",
        '    _arguments -C -A "-*" \\',
        *(f"        {_zsh_option(option)} \\" for option in program.options),
        "        '1:command:->command' '*::argument:->argument'",
        "    case $state in",
        "        command) _describe command commands ;;",
        "        argument)",
        "            configuration=$opt_args[--config]",
        "            case $words[1] in",
        *(line for command in program.commands for line in _zsh_command(command)),
        "            esac ;;",
        "    esac",
        "}",
        'if [[ $funcstack[1] == _sgagent ]]; then _sgagent "$@"; else compdef _sgagent sgagent; fi',
    ]
    return "\n".join((*lines, ""))


_ZSH_FUNCTIONS = r"""
_sgagent_links() { local -a links=(/sys/class/net/*(N/:t)); links=(${links:#lo}); compadd "$@" -a links }
_sgagent_known() {
    local -a given found
    configuration=${opt_args[--config]:-$configuration}
    if [[ -n $configuration ]]; then given+=(--config $configuration); fi
    if [[ -n $opt_args[--definitions] ]]; then given+=(--definitions $opt_args[--definitions]); fi
    found=(${(f)"$(_call_program ids sgagent complete $1 ${(q)given} 2> /dev/null)"})
    compadd -a found
}
_sgagent_bindings() {
    if compset -P '*='; then compset -P '*,'; _sgagent_known groups; else _sgagent_links -S =; fi
}
_sgagent_codes() { compset -P '*,'; compadd -S '' -- $=1 }
""".strip()
_ZSH = {
    Value.FILE: "_files",
    Value.LINK: "_sgagent_links",
    Value.BOUND_LINK: "{_sgagent_known links}",
    Value.BINDING: "_sgagent_bindings",
    Value.RULE: "{_sgagent_known rules}",
    Value.ANY: " ",
}


def _zsh_command(command: Command) -> Iterator[str]:
    parts = [_zsh_option(option) for option in command.options]
    for argument in command.arguments:
        action = _ZSH.get(argument.value) or f"({' '.join(argument.choices)})"
        parts.append(_zsh_quoted(f":{_zsh_escaped(argument.metavar)}:{action}"))
    yield f"                {command.name}) _arguments {' '.join(parts)} ;;"


def _zsh_option(option: Option) -> str:
    name = option.names[-1]
    repeated = "*" if option.value is Value.BINDING else ""
    text = f"[{_zsh_escaped(option.text or option.metavar or name)}]"
    if option.value is Value.NONE:
        return _zsh_quoted(f"{repeated}{name}{text}")
    action = _ZSH.get(option.value) or f"({' '.join(option.choices)})"
    if option.value is Value.CODES:
        action = f"{{_sgagent_codes '{' '.join(option.choices)}'}}"
    return _zsh_quoted(f"{repeated}{name}{text}:{_zsh_escaped(option.metavar)}:{action}")


def _zsh_escaped(text: str) -> str:
    """Return text that ends neither a description nor a field."""
    for mark in "\\[]:":
        text = text.replace(mark, f"\\{mark}")
    return text


def _zsh_quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def fish_completion(program: Program) -> str:
    """Return a script for fish."""
    lines = [
        f"# fish completion of sgagent; {_GENERATED}.",
        *_FISH_FUNCTIONS.splitlines(),
        "complete -c sgagent -f",
        *(_fish_option("__fish_use_subcommand", option) for option in program.options),
    ]
    for command in program.commands:
        summary = _fish_quoted(command.summary)
        lines.append(f"complete -c sgagent -n __fish_use_subcommand -a {command.name} -d {summary}")
        seen = f"'__fish_seen_subcommand_from {command.name}'"
        lines += [_fish_option(seen, option) for option in command.options]
        lines += [
            f"complete -c sgagent -n {_fish_missing(command, argument)}"
            f" -a {_fish_quoted(' '.join(argument.choices))}"
            for argument in command.arguments
            if argument.choices
        ]
        if any(argument.value is Value.FILE for argument in command.arguments):
            lines.append(f"complete -c sgagent -n {seen} -F")
    return "\n".join((*lines, ""))


def _fish_missing(command: Command, argument: Argument) -> str:
    """Return the condition that a command is there, and none of the words of its argument."""
    words = " ".join(argument.choices)
    return f"'__fish_seen_subcommand_from {command.name}; and not __fish_seen_subcommand_from {words}'"


_FISH_FUNCTIONS = """
function __sgagent_links
    path filter -d /sys/class/net/* | path basename | string match -v lo
end
function __sgagent_known
    set -l given
    set -l words (commandline -opc)
    for i in (seq (count $words))
        switch $words[$i]
            case --config --definitions
                set -a given $words[$i] $words[(math $i + 1)]
            case '--config=*' '--definitions=*'
                set -a given $words[$i]
        end
    end
    sgagent complete $argv $given 2> /dev/null
end
function __sgagent_listed
    set -l head (string match -r '^(?:.*[=,])?' -- (commandline -ct))
    string replace -r '^' -- "$head" $argv
end
function __sgagent_bindings
    if string match -q '*=*' -- (commandline -ct)
        __sgagent_listed (__sgagent_known groups)
    else
        string replace -r '$' = (__sgagent_links)
    end
end
""".strip()
_FISH = {
    Value.NONE: "",
    Value.ANY: " -x",
    Value.FILE: " -r -F",
    Value.LINK: " -x -a '(__sgagent_links)'",
    Value.BOUND_LINK: " -x -a '(__sgagent_known links)'",
    Value.BINDING: " -x -a '(__sgagent_bindings)'",
    Value.RULE: " -x -a '(__sgagent_known rules)'",
}


def _fish_option(condition: str, option: Option) -> str:
    names = "".join(
        f" -l {name[2:]}" if name.startswith("--") else f" -s {name[1:]}" for name in option.names
    )
    words = " ".join(option.choices)
    if option.value is Value.CODES:
        words = f"(__sgagent_listed {words})"
    value = _FISH.get(option.value) or f" -x -a {_fish_quoted(words)}" * bool(words)
    text = f" -d {_fish_quoted(option.text)}" if option.text else ""
    return f"complete -c sgagent -n {condition}{names}{value}{text}"


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
