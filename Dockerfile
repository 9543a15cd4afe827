# A Docker Space (sdk: docker, app_port: 7860) or any server. With an NVIDIA driver >= 580 it uses the GPU.
FROM python:3.11-slim

RUN useradd --create-home --uid 1000 user
USER user
ENV PATH=/home/user/.local/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    GRADIO_ANALYTICS_ENABLED=False
WORKDIR /home/user/app

COPY --chown=user requirements.txt .
RUN pip install --user --no-cache-dir -r requirements.txt \
    && pip install --user --no-cache-dir --no-deps image-reward==1.5

COPY --chown=user . .
EXPOSE 7860
CMD ["python", "app.py", "--host", "0.0.0.0"]
