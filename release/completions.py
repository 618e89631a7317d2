"""Write the completions for bash, zsh and fish."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from release.commandline import Command, Option, Program, Value

_GENERATED = "generated from the commands' own parsers"


def bash_completion(program: Program) -> str:
    """Return a script for bash; it stands alone, and needs no package of completions."""
    lines = [
        f"# bash completion of sgagent; {_GENERATED}.",
        '_sgagent_words() { mapfile -t COMPREPLY < <(compgen -W "$1" -- "$word"); }',
        '_sgagent_links() { local links=(/sys/class/net/*); _sgagent_words "${links[*]##*/}"; }',
        "_sgagent_bindings() {",
        "    _sgagent_links",
        '    COMPREPLY=("${COMPREPLY[@]/%/=}")',
        "    compopt -o nospace",
        "}",
        '_sgagent_files() { compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$word"); }',
        "_sgagent() {",
        "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} command= i",
        "    # bash takes the = of --option=value for a word of its own.",
        '    if [[ $before == "=" ]]; then before=${COMP_WORDS[COMP_CWORD - 2]}; fi',
        '    if [[ $word == "=" ]]; then word=; fi',
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


_BASH = {
    Value.FILE: "_sgagent_files",
    Value.LINK: "_sgagent_links",
    Value.BINDING: "_sgagent_bindings",
    Value.ANY: ":",
}


def _bash_values(command: str, options: Iterable[Option]) -> Iterator[str]:
    """Yield what completes the value behind each option."""
    for option in options:
        if option.value is not Value.NONE:
            patterns = "|".join(f"{command}:{name}" for name in option.names)
            action = _BASH.get(option.value) or f'_sgagent_words "{" ".join(option.choices)}"'
            yield f"        {patterns}) {action} ;;"


def _bash_words(command: Command) -> str:
    """Return what completes a word that belongs to no option: files too, where the command takes some."""
    words = f'_sgagent_words "{_words_of(command)}"'
    if not any(argument.value is Value.FILE for argument in command.arguments):
        return words
    chosen = "|".join(word for argument in command.arguments for word in argument.choices)
    is_word = f'$word == -* || ! " ${{COMP_WORDS[*]:1}} " =~ " "({chosen})" "' if chosen else "$word == -*"
    return f"if [[ {is_word} ]]; then {words}; else _sgagent_files; fi"


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
        "_sgagent_links() { local -a links=(/sys/class/net/*(N:t)); compadd -a links }",
        "_sgagent_bindings() { local -a links=(/sys/class/net/*(N:t)); compadd -S = -a links }",
        "_sgagent() {",
        "    local curcontext=$curcontext state line",
        "    local -a commands=(",
        *(f"        {_zsh_quoted(f'{c.name}:{c.summary}')}" for c in program.commands),
        "    )",
        "    _arguments -C \\",
        *(f"        {_zsh_option(option)} \\" for option in program.options),
        "        '1:command:->command' '*::argument:->argument'",
        "    case $state in",
        "        command) _describe command commands ;;",
        "        argument)",
        "            case $words[1] in",
        *(line for command in program.commands for line in _zsh_command(command)),
        "            esac ;;",
        "    esac",
        "}",
        'if [[ $funcstack[1] == _sgagent ]]; then _sgagent "$@"; else compdef _sgagent sgagent; fi',
    ]
    return "\n".join((*lines, ""))


_ZSH = {
    Value.FILE: "_files",
    Value.LINK: "_sgagent_links",
    Value.BINDING: "_sgagent_bindings",
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
        "function __sgagent_links",
        "    path basename /sys/class/net/*",
        "end",
        "complete -c sgagent -f",
        *(_fish_option("__fish_use_subcommand", option) for option in program.options),
    ]
    for command in program.commands:
        summary = _fish_quoted(command.summary)
        lines.append(f"complete -c sgagent -n __fish_use_subcommand -a {command.name} -d {summary}")
        seen = f"'__fish_seen_subcommand_from {command.name}'"
        lines += [_fish_option(seen, option) for option in command.options]
        lines += [
            f"complete -c sgagent -n {seen} -a {_fish_quoted(' '.join(argument.choices))}"
            for argument in command.arguments
            if argument.choices
        ]
        if any(argument.value is Value.FILE for argument in command.arguments):
            lines.append(f"complete -c sgagent -n {seen} -F")
    return "\n".join((*lines, ""))


_FISH = {
    Value.NONE: "",
    Value.ANY: " -x",
    Value.FILE: " -r -F",
    Value.LINK: " -x -a '(__sgagent_links)'",
    Value.BINDING: " -x -a '(__sgagent_links)='",
}


def _fish_option(condition: str, option: Option) -> str:
    names = "".join(
        f" -l {name[2:]}" if name.startswith("--") else f" -s {name[1:]}" for name in option.names
    )
    value = _FISH.get(option.value) or (
        f" -x -a {_fish_quoted(' '.join(option.choices))}" * bool(option.choices)
    )
    text = f" -d {_fish_quoted(option.text)}" if option.text else ""
    return f"complete -c sgagent -n {condition}{names}{value}{text}"


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
