# Have Vagrant itself read a Vagrantfile, and print what it is told about each machine, as JSON.
#
#   ruby vagrantfile.rb FOLDER PROVIDER

gem "vagrant"
require "json"
require "vagrant"

folder, provider = ARGV[0], ARGV[1].to_sym
environment = Vagrant::Environment.new(cwd: folder, ui_class: Vagrant::UI::Silent)
machines = environment.machine_names.map do |name|
  # Without a look at whether the provider can run here.
  found = environment.vagrantfile.machine_config(name, provider, environment.boxes, nil, false)
  vm = found[:config].vm
  {
    name: name,
    box: vm.box,
    providers: vm.__providers,
    errors: found[:config_errors],
    warnings: found[:config_warnings],
    hostname: vm.hostname,
    networks: vm.networks.select { |kind, _| kind != :forwarded_port },
    folders: vm.synced_folders.values.reject { |options| options[:disabled] },
    scripts: vm.provisioners.map { |provisioner| [provisioner.type, provisioner.config.inline] },
  }
end
puts JSON.generate(machines)
