use std::{
    env,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    thread,
};

fn main() {
    let port = env::var("PORT").unwrap_or_else(|_| "8080".into());
    let listener = TcpListener::bind(format!("0.0.0.0:{port}")).expect("the port is free");
    for stream in listener.incoming().flatten() {
        thread::spawn(move || serve(stream));
    }
}

fn serve(mut stream: TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().expect("a stream has two ends"));
    let mut request = String::new();
    if reader.read_line(&mut request).is_err() {
        return;
    }
    // To the empty line: a connection that is closed with something unread is reset.
    for header in reader.lines().flatten() {
        if header.is_empty() {
            break;
        }
    }
    let (status, body) = answer(request.split(' ').nth(1).unwrap_or_default());
    let length = body.len();
    let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
}

fn answer(path: &str) -> (&'static str, String) {
    match path {
        "/" => ("200 OK", "hello from Rust\n".into()),
        "/health" => ("200 OK", "ok\n".into()),
        "/version" => ("200 OK", env::var("APP_VERSION").unwrap_or_default()),
        _ => ("404 Not Found", "no such page\n".into()),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn greets() {
        assert!(super::answer("/").1.contains("hello"));
    }
}
