"""The node `dashboard`: a web page that shows a policy and sends orders to it. Only `nodes/dashboard_node` imports it.

- `access`: who may use the page: host names, origins, token; no ROS
- `server`, `page_connection`: the web server, and one browser; no ROS
- `robot`, `cameras`: what the nodes publish, as the page shows it, and the orders to them
- `stop_thread`: the stop button, on a thread and a ROS client of its own
- `simulator`: the simulator and the operator, and the reset of the simulator
- `jobs`: learning steps, as commands of m2distill on this computer; no ROS
- `episodes`: the kept episodes of the recorder's folder; no ROS
- `static/`: HTML, CSS and JavaScript of the page, without a build step and without anything from elsewhere
"""
