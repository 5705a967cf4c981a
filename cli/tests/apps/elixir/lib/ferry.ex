defmodule Ferry do
  @moduledoc "An HTTP service on what Erlang brings."
  use Application

  @impl true
  def start(_type, _arguments) do
    port = String.to_integer(System.get_env("PORT", "8080"))
    {:ok, listener} = :gen_tcp.listen(port, [:binary, packet: :http_bin, active: false, reuseaddr: true])
    Task.start_link(fn -> accept(listener) end)
  end

  defp accept(listener) do
    {:ok, socket} = :gen_tcp.accept(listener)
    spawn(fn -> serve(socket) end)
    accept(listener)
  end

  defp serve(socket) do
    with {:ok, {:http_request, _, {:abs_path, path}, _}} <- :gen_tcp.recv(socket, 0),
         :ok <- headers(socket) do
      {status, body} = answer(path)

      :gen_tcp.send(
        socket,
        "HTTP/1.1 #{status}\r\nContent-Length: #{byte_size(body)}\r\nConnection: close\r\n\r\n#{body}"
      )
    end

    :gen_tcp.close(socket)
  end

  defp headers(socket) do
    case :gen_tcp.recv(socket, 0) do
      {:ok, :http_eoh} -> :ok
      {:ok, _} -> headers(socket)
      other -> other
    end
  end

  def answer("/"), do: {"200 OK", "hello from Elixir\n"}
  def answer("/health"), do: {"200 OK", "ok\n"}
  def answer("/version"), do: {"200 OK", System.get_env("APP_VERSION", "")}
  def answer(_), do: {"404 Not Found", "no such page\n"}
end
